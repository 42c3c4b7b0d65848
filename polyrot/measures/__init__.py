"""What is measured, one module or folder for each family of claims."""
