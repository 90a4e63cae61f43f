-- Sends messages of a topic to the host that asks, on the way on which it gets new ones.
-- ARGV: 7 the question, 8 'read' or 'recover', 9 the most bytes of payloads,
--       read: 10 the most messages, 11 '1' for the newest first, 12 only those above, 13 only those below (0: all),
--             14 an epoch and 15 an offset: only those above, if it is this epoch
--       recover: 10 the most messages, unless there are more after 11, positions of eight and eight bytes

local MOST = 4194304
local BESIDE_PAYLOAD = 32

local epoch, offset = position()
drop_aged(milliseconds())
keep_position()

local limit, is_backwards, above, below = tonumber(ARGV[10]), true, 0, 0
if ARGV[8] == 'recover' then
    local earliest = offset
    for at = 1, #ARGV[11], 16 do
        if string.sub(ARGV[11], at, at + 7) == epoch then
            earliest = math.min(earliest, (struct.unpack('<I8', ARGV[11], at + 8)))
        end
    end
    limit = math.max(limit, offset - earliest)
else
    is_backwards, above, below = ARGV[11] == '1', tonumber(ARGV[12]), tonumber(ARGV[13])
    if ARGV[14] == epoch then
        above = math.max(above, tonumber(ARGV[15]))
    end
end

local found, goes_on = {}, false
local payloads, total = 0, 0

-- Returns false if the message does not fit any more.
local function take(message)
    local payload = message[2][4]
    local is_first = payloads == 0
    payloads = payloads + math.max(#payload, 1)
    total = total + #payload + BESIDE_PAYLOAD
    if #found >= limit or not is_first and (payloads > tonumber(ARGV[9]) or total > MOST) then
        return false
    end
    found[#found + 1] = message
    return true
end

local function collect()
    if above >= offset or below ~= 0 and below <= above + 1 then
        return
    end
    local first = text(above + 1)
    local last = (below == 0 or below > offset) and '+' or text(below - 1)
    while true do
        local next_ones
        if is_backwards then
            next_ones = redis.call('XREVRANGE', KEYS[2], last, first, 'COUNT', 16)
        else
            next_ones = redis.call('XRANGE', KEYS[2], first, last, 'COUNT', 16)
        end
        for _, message in ipairs(next_ones) do
            if not take(message) then
                goes_on = true
                return
            end
        end
        if #next_ones < 16 then
            return
        end
        local id = '(' .. next_ones[16][1]
        if is_backwards then
            last = id
        else
            first = id
        end
    end
end

collect()

local parts = {}
for index, message in ipairs(found) do
    local at, unix = string.match(message[1], '(%d+)-(%d+)')
    local beside, payload = message[2][2], message[2][4]
    local place = ARGV[8] == 'recover' and #found + 1 - index or index
    parts[place] = bytes(tonumber(at)) .. bytes(tonumber(unix)) .. beside .. struct.pack('<I4', #payload) .. payload
end
local head = ARGV[6] .. '\4' .. ARGV[7] .. epoch .. bytes(offset) .. (goes_on and '\1' or '\0')
return redis.call('PUBLISH', ARGV[5], head .. table.concat(parts))
