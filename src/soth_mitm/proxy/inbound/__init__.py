"""How clients say where they want to connect. Each way is a file with a class that has the methods of `Inbound`."""
