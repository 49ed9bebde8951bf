"""``python -m webpd`` is the command ``webpd``."""

from webpd.cli import main

main()
