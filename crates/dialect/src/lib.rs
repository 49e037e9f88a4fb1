//! What is said on the wire: encode a request, decode an upstream answer; pure, no clock, no ids, no I/O.
