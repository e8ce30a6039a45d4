"""`python -m andon`: the command line, where the script of that name is not on the path."""

from andon.cli.main import main

main(prog_name="andon")
