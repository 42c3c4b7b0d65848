"""The mathematics of two activation matrices; a @ r ~ b, a the sibling and b the anchor."""
