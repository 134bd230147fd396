"""What is known about a conversation: its words, the screens seen, the products used."""
