"""A page that shows what live mode does. It only reads, in a process of its own."""
