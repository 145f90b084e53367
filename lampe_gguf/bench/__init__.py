"""Reading and writing timed, LaMPE against stock attention."""
