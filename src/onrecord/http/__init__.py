"""How a program asks: routes, bodies and error answers."""
