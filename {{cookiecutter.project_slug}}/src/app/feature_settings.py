"""The settings of the features. docs/add-a-setting.md shows how to add one."""

from pydantic import BaseModel


class FeatureSettings(BaseModel):
    """Each field is read from the environment variable of its name, in upper case."""
