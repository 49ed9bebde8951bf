"""Bytes in, bytes and facts out: the picture itself, and the processes that keep its codecs away from everything.

Inside a worker process: ``converter`` (``ImageConverter``) and what it stands on. In the service: ``pool``, which
never imports Pillow.
"""
