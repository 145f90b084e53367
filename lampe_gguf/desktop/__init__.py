"""The desktop program: a window to ask long documents in, on the asynchronous API alone.

It imports PySide6, the standard library, this room, and the public names of `lampe_gguf`: what is
here, anyone may build. `app.py` starts it; `window.py` puts the parts together; `desk.py` holds
what is going on, and asks the session; each other module is one part of the window.
"""
