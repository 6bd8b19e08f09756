"""A person's file: what it holds, its checks, its editing, and its conversion to other programs' formats."""
