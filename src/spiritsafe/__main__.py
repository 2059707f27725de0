"""`python -m spiritsafe` is `spiritsafe`."""

from spiritsafe.cli.main import main

if __name__ == "__main__":
    main()
