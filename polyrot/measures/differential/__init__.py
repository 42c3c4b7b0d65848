"""The differential test: the paper's own pipeline and this suite on the same trained toys."""
