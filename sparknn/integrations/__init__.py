"""Work with other libraries, each a module of its own that imports its library when it is used."""
