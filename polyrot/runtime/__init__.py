"""What runs need and science does not: devices, seeding, progress, files written whole."""
