//! The one entry of the API server: every request, from a socket or from the same process, comes through [`Api::handle`].
