"""From labelled chats to a served bundle: one file a stage, in the order in which they run."""
