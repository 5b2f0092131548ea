"""Where flags become a configuration, and errors one sentence."""
