"""The demo: the main job from start to finish, over HTTP, by processes that hold nothing but a partner's own key."""
