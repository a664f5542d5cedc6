"""Where labelled images come from: folders, manifests, built-in sets; and which image trains, validates and tests."""
