"""The suite that a codec has to pass, ours and third parties'."""
