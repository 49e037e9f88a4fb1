-- Units beside text: images, time, characters, searches and pages; NULL where a request had none.
-- What the operator pays the provider, where that is not the price of the customer (NULL: it is), and
-- what was counted here beside what the provider reported (NULL: nothing was reported or counted).
ALTER TABLE charges ADD COLUMN image_completion bigint;
ALTER TABLE charges ADD COLUMN images bigint;
ALTER TABLE charges ADD COLUMN milliseconds bigint;
ALTER TABLE charges ADD COLUMN characters bigint;
ALTER TABLE charges ADD COLUMN searches bigint;
ALTER TABLE charges ADD COLUMN pages bigint;
ALTER TABLE charges ADD COLUMN provider_cost bigint;
ALTER TABLE charges ADD COLUMN counted_prompt bigint;
ALTER TABLE charges ADD COLUMN counted_completion bigint;
ALTER TABLE closings ADD COLUMN image_completion bigint;
ALTER TABLE closings ADD COLUMN images bigint;
ALTER TABLE closings ADD COLUMN milliseconds bigint;
ALTER TABLE closings ADD COLUMN characters bigint;
ALTER TABLE closings ADD COLUMN searches bigint;
ALTER TABLE closings ADD COLUMN pages bigint;
ALTER TABLE closings ADD COLUMN provider_cost bigint;
ALTER TABLE checkpoints ADD COLUMN image_completion bigint;
ALTER TABLE checkpoints ADD COLUMN images bigint;
ALTER TABLE checkpoints ADD COLUMN milliseconds bigint;
ALTER TABLE checkpoints ADD COLUMN characters bigint;
ALTER TABLE checkpoints ADD COLUMN searches bigint;
ALTER TABLE checkpoints ADD COLUMN pages bigint;
ALTER TABLE checkpoints ADD COLUMN provider_cost bigint;
