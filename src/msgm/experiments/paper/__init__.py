"""The paper's tables, made again: what is trained and measured for each, and the paper's own numbers beside ours."""
