"""Operations: what each of them reads, decides, writes and answers. The only coroutines."""
