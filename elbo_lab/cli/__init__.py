"""The command line: flags become a configuration, and user errors one sentence."""
