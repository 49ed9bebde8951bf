"""Where to look: what kind of mount a tree is on. (Which directories changed: to come.)"""
