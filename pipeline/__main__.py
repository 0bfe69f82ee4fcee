"""`python -m pipeline` is the command `friday`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
