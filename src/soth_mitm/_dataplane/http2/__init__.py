"""HTTP/2: header compression, frames, and the state of one connection. Bytes in, events out; nothing here sees a transport."""
