-- Units beside text: images, time, characters, searches and pages; NULL where a request had none.
-- What the operator pays the provider, where that is not the price of the customer (NULL: it is), and
-- what was counted here beside what the provider reported (NULL: nothing was reported or counted).
ALTER TABLE charges ADD COLUMN image_completion INTEGER;
ALTER TABLE charges ADD COLUMN images INTEGER;
ALTER TABLE charges ADD COLUMN milliseconds INTEGER;
ALTER TABLE charges ADD COLUMN characters INTEGER;
ALTER TABLE charges ADD COLUMN searches INTEGER;
ALTER TABLE charges ADD COLUMN pages INTEGER;
ALTER TABLE charges ADD COLUMN provider_cost INTEGER;
ALTER TABLE charges ADD COLUMN counted_prompt INTEGER;
ALTER TABLE charges ADD COLUMN counted_completion INTEGER;
ALTER TABLE closings ADD COLUMN image_completion INTEGER;
ALTER TABLE closings ADD COLUMN images INTEGER;
ALTER TABLE closings ADD COLUMN milliseconds INTEGER;
ALTER TABLE closings ADD COLUMN characters INTEGER;
ALTER TABLE closings ADD COLUMN searches INTEGER;
ALTER TABLE closings ADD COLUMN pages INTEGER;
ALTER TABLE closings ADD COLUMN provider_cost INTEGER;
ALTER TABLE checkpoints ADD COLUMN image_completion INTEGER;
ALTER TABLE checkpoints ADD COLUMN images INTEGER;
ALTER TABLE checkpoints ADD COLUMN milliseconds INTEGER;
ALTER TABLE checkpoints ADD COLUMN characters INTEGER;
ALTER TABLE checkpoints ADD COLUMN searches INTEGER;
ALTER TABLE checkpoints ADD COLUMN pages INTEGER;
ALTER TABLE checkpoints ADD COLUMN provider_cost INTEGER;
