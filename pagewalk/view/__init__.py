"""`pagewalk view`: a run as one web page that needs no network.

`document` says what of a playback is in it, `packing` how that is packed into text, and `page` puts
it together with page.html, page.css and the scripts, which are what moves.
"""
