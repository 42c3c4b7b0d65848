"""The four pre-registered bars of the toy, and alignment by its symmetries."""
