"""python -m qcnode: the same as the command `qcnode`."""

from qcnode.cli import main

if __name__ == "__main__":  # a spawned grading process imports this module too
    main()
