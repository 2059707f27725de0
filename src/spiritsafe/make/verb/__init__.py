"""What `spiritsafe make` does inside this room: its settings, what a teacher allows, and the stages to a student."""
