//! Files that matter: written to a temporary name, fsynced, renamed, directory fsynced (DESIGN section 5).
