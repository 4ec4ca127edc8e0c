//! The five clocks of a language model call as one tower layer: connect, first token, idle, response, total.
