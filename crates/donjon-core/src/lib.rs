//! The vocabulary of Donjon: requests, responses, streams, errors and the end of a call, for tower services that call language models.
