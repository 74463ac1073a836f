//! Actors: they translate, call and send; decisions live in plain structs.

