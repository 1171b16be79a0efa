"""The console: the pages of the server, for people, under `/console`.

A page is a route of a module here and a template that extends `layout.html`. The route is of a
router with `route_class=PageRoute`, which gives every page its headers and turns an error into a
page; it asks for `PersonDep`, and a form that changes something for `ChangeDep`. It calls what the
API's routes call and has no rules of its own.
"""
