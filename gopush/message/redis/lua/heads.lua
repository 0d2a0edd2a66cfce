-- Where logs end. Arguments: prefix, then keys. Gives in a row, as doubles, the server's clock, then last and highest
-- trimmed mid of each, less than 0 where the head is strange; then a strange name.
local none, failed = struct.pack('>dd', 0, 0), struct.pack('>dd', -1, -1)
local answers = {struct.pack('>d', now)}
for at = 2, #args do
  local head = head_of(args[at])
  answers[at] = head and string.sub(head, 1, 16) or head == nil and failed or none
end
answers[#answers + 1] = strange
return table.concat(answers)
