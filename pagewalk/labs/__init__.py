"""Labs for courses: a directory for each student, and checks that run the CPU on the answers."""
