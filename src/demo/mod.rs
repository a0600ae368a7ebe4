//! `webmesh demo`: three machines and two home routers in namespaces of this process (transcripts.md).
