//! A registry and a pusher together: sending to groups, to a principal, to everyone.
