"""Where to look: which directories have news, what kind of mount a tree is on, and whether that is fit for work."""
