"""What is wrong with a data set, told before it costs a training; nothing is changed."""
