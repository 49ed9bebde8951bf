"""What a site gives to browsers: asked over HTTP as they ask, through whatever stands between (``webpd check``)."""
