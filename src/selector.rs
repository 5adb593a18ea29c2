//! Label selectors (set based) and field selectors: parse, print, match.
