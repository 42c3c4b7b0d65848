"""`python -m polyrot`: the same as the command `polyrot`."""

from polyrot.cli import script

if __name__ == "__main__":
    script()
