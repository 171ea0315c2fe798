"""The local web page and its JSON: what the stages keep, for people. `app.create_app` is the way in."""
